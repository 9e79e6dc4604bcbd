"""Supervised fine-tuning: `swim train --config run_scripts/configs/sft_demo.yaml [--key value ...]`."""
