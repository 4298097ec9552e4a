"""The interactive viewer `monai-ifim view`, on trame-slicer."""
