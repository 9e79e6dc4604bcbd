"""The data's way: mixture -> record -> sample -> model inputs and the four supervision tensors."""
