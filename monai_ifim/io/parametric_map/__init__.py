"""DICOM Parametric Maps (PS3.3 A.75): their source, their codes, writing."""
