"""DICOMweb: access rules and the client (DICOM PS3.18)."""
