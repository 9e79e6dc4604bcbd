"""The mixin for exact resumption: it refuses a release of transformers that has lost what it mends."""

import pytest
from transformers import Trainer

from swim.train.resumable import OWN, ResumableTrainer, refuse_unknown_release


def test_every_overridden_method_exists_in_the_pinned_release():
    refuse_unknown_release(Trainer, ResumableTrainer, OWN)


def test_a_renamed_method_is_an_import_error():
    class Mends(ResumableTrainer):
        def _load_weights_of_old(self):
            """What a later release might call something else."""

    with pytest.raises(ImportError, match="has no _load_weights_of_old"):
        refuse_unknown_release(Trainer, Mends, set())
