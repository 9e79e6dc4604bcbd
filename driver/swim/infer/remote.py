"""Answers from any OpenAI-compatible server, such as vLLM: the sampled frames go along as pictures."""

import json
import sys
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from swim.concurrently import run_concurrently
from swim.data.sample import USUAL_CELL_PX, SampleReader
from swim.data.settings import DataSettings
from swim.errors import DataError
from swim.files import write_atomically
from swim.infer.answers import AnswerStore, Question
from swim.llm import Asker, AskFailed
from swim.video.clip import Clip
from swim.video.encoder import jpeg_uri

SERVER_FILE = "server.json"


def answer_remotely(questions: list[Question], asker: Asker, settings: DataSettings, store: AnswerStore[str]):
    """Answers what `store` does not hold yet. A question that cannot be asked or answered becomes an error in the store.

    Raises swim.llm.ServiceRefuses when the server will answer nothing more; what was answered is kept.
    """
    reader = SampleReader(settings, USUAL_CELL_PX)

    def ask(question: Question) -> dict:
        try:
            clip = reader.read(question.record).clip
            reply = asker.ask(messages_of(question, clip, settings.system_prompt))
            return {"id": question.id, "answer": reply.text.strip()}
        except (DataError, AskFailed) as error:
            return {"id": question.id, "error": str(error)}

    still_open = [question for question in questions if question.id not in store.answers]
    answered = run_concurrently(still_open, ask, asker.endpoint.concurrency)
    for _, entry in tqdm(answered, total=len(still_open), desc="asking", unit="item"):
        store.add([entry])
    if asker.adaptations:
        print(f"{asker.endpoint.model} was asked otherwise: {'; '.join(asker.adaptations)}", file=sys.stderr)
        write_atomically(store.folder / SERVER_FILE, json.dumps({"adaptations": asker.adaptations}, indent=1) + "\n")


def server_notes(folder: Path) -> dict:
    """{"adaptations": how the server that answered had to be asked otherwise}, for a report; {} where it was not."""
    path = folder / SERVER_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def messages_of(question: Question, clip: Clip, system_prompt: str) -> list[dict]:
    """The chat: system prompt, then the frames in order and the question."""
    frames = [
        {"type": "image_url", "image_url": {"url": jpeg_uri(Image.fromarray(frame.permute(1, 2, 0).numpy()))}}
        for frame in clip.frames
    ]
    text = {"type": "text", "text": question.record.turns[0].text}
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, {"role": "user", "content": [*frames, text]}]
