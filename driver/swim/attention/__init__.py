"""Analysis of attention maps; the maps themselves come from the fork's attention_supervision.py."""
