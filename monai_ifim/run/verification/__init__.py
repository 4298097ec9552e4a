"""Are results what their records say? Files, tables, inputs and bundle by their hashes; nothing is made."""
