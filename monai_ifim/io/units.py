"""Names of the units of image intensities, as sidecars, scenes and Parametric Maps state them."""

from __future__ import annotations

HOUNSFIELD = "Hounsfield units"
SCANNER_UNITS = "scanner units"
GREY_VALUES = "grey values"
NETWORK_UNITS = "network input intensity"
MODALITY_UNITS = {"CT": HOUNSFIELD}
PET_UNITS = {"BQML": "Bq/ml", "GML": "g/ml", "CNTS": "counts"}  # PS3.3, C.8.9.1: Units (0054,1001)
