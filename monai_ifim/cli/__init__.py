"""The command line `monai-ifim`: one file a verb, each a thin call into the library."""
