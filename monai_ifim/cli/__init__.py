"""The command line `monai-ifim`: one file per verb, each a thin call into the library."""
