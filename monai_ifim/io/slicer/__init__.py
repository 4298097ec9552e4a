"""3D Slicer scenes (.mrml, .mrb): volumes, views, colour tables, the table of the spectrum."""
