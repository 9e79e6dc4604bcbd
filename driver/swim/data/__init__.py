"""The data's way: mixture -> record -> sample -> frames -> model inputs and the four supervision tensors."""
