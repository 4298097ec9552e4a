"""DICOM series and multi-frame objects: headers, grouping into volumes, regularity, resampling, the reader."""
