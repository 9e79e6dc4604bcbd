"""NL-Refer data from VideoRefer files and from videos with masks: placeholders become natural, tagged phrases."""
