"""Consolidates what training left into one checkpoint that everything loads.

    swim export output/swim-7b --output output/swim-7b-bf16
    swim export output/swim-7b/checkpoint-500 --output output/swim-7b-500 --push_to_hub you/SWIM-7B

Takes a finished run or a checkpoint of it: whole weights, a LoRA adapter (merged into its base), or the shards of ZeRO-2
and ZeRO-3. Writes bf16 safetensors under the released checkpoints' names, with configuration, processor, chat template and
a model card: for stock transformers, vLLM and every command here.
"""

from swim.command_line import command_parser


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim export")
    parser.add_argument("source", help="folder of a run, or one of its checkpoints")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16", help="of the written weights"
    )
    parser.add_argument("--push_to_hub", metavar="NAME", help="also upload as this model, private when it is new")
    options = parser.parse_args(arguments)
    from swim.cli.runs.export import run

    return run(options)
