"""Volumes that nibabel reads: NIfTI, Analyze 7.5, FreeSurfer's MGH and AFNI; their headers, checks and reader."""
