"""One record and one model: asks, checks, asks again with the reason, a bounded number of times."""

from dataclasses import dataclass

from swim.construct.checks import Refusal, Refused, accept, accept_synonyms
from swim.construct.prompt import ask_again, messages_of, parse_reply, schema_of
from swim.construct.tasks import Kind, Task
from swim.errors import DataError
from swim.llm import Asker, AskFailed
from swim.reply_cache import Reply


@dataclass(frozen=True)
class RewriteSettings:
    """How records are rewritten.

    attempts: maximum replies per record.
    with_frames: outlined frames shown with it.
    synonyms: also write a synonym variant of bench items.
    """

    attempts: int = 3
    with_frames: int = 0
    synonyms: bool = False

    def wants_synonyms(self, task: Task) -> bool:
        return self.synonyms and task.kind is not Kind.CONVERSATION


@dataclass(frozen=True)
class Outcome:
    """What became of a record: `record` (and `synonym`, its variant) when accepted, else `refusal` and `message`.

    replies: all that were used, the refused ones too.
    """

    record: dict | None = None
    synonym: dict | None = None
    refusal: Refusal | None = None
    message: str = ""
    replies: tuple[Reply, ...] = ()


class Rewriter:
    """Rewrites tasks with one model. Safe to use from many threads."""

    def __init__(self, asker: Asker, settings: RewriteSettings = RewriteSettings()):
        self.asker = asker
        self.settings = settings

    def rewrite(self, task: Task) -> Outcome:
        """Accepted, or refused with the reason of the last reply.

        Raises swim.llm.ServiceRefuses when the model will answer nothing more.
        """
        synonyms = self.settings.wants_synonyms(task)
        try:
            messages = self._first_messages(task, synonyms)
        except DataError as error:
            return Outcome(refusal=Refusal.NO_FRAMES, message=error.message)
        replies: list[Reply] = []
        for _ in range(self.settings.attempts):
            try:
                replies.append(self.asker.ask(messages, schema_of(synonyms)))
            except AskFailed as error:
                return Outcome(refusal=Refusal.NO_REPLY, message=str(error), replies=tuple(replies))
            try:
                record, synonym = self._judge(task, replies[-1].text, synonyms)
                return Outcome(record, synonym, replies=tuple(replies))
            except Refused as error:
                refused = error
            messages = ask_again(messages, replies[-1].text, refused)
        return Outcome(refusal=refused.reason, message=str(refused), replies=tuple(replies))

    def _judge(self, task: Task, reply: str, synonyms: bool) -> tuple[dict, dict | None]:
        rewriting, with_frames = parse_reply(reply, synonyms), self.settings.with_frames > 0
        record = accept(task, rewriting, with_frames)
        return record, accept_synonyms(task, rewriting, with_frames) if synonyms else None

    def _first_messages(self, task: Task, synonyms: bool) -> list[dict]:
        count = self.settings.with_frames
        if not count:
            return messages_of(task, synonyms)
        from swim.construct.frames import colour_of, outlined_frames  # brings torch: seconds that text need not wait

        frames = outlined_frames(task.source, task.instances, count, task.fps)
        colours = {number: colour_of(number) for number in task.objects}
        return messages_of(task, synonyms, [frame.uri for frame in frames], colours)
