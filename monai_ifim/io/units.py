"""Names of the units of image intensities, as sidecars, scenes and Parametric Maps state them, and DICOM's codes for them."""

from __future__ import annotations

HOUNSFIELD = "Hounsfield units"
SCANNER_UNITS = "scanner units"
GREY_VALUES = "grey values"
NETWORK_UNITS = "network input intensity"
RESCALE_UNITS = {  # PS3.3, C.11.1.1.2: Rescale Type and Modality LUT Type; US is unspecified
    "HU": HOUNSFIELD,
    "OD": "thousandths of optical density",
    "MGML": "mg/ml",
    "Z_EFF": "effective atomic number",
    "ED": "10^23 electrons/ml",
    "EDW": "electron density relative to water",
    "HU_MOD": "modified Hounsfield units",
    "PCT": "percent",
}
PET_UNITS = {  # PS3.3, C.8.9.1.1.3: Units (0054,1001)
    "BQML": "Bq/ml",
    "GML": "g/ml",
    "CNTS": "counts",
    "CPS": "counts/s",
    "CM2": "cm2",
    "CM2ML": "cm2/ml",
    "PCNT": "percent",
    "MGMINML": "mg/min/ml",
    "UMOLMINML": "umol/min/ml",
    "MLMING": "ml/min/g",
    "MLG": "ml/g",
    "1CM": "1/cm",
    "UMOLML": "umol/ml",
    "MLMINML": "ml/min/ml",
    "MLML": "ml/ml",
}
# Codes of UCUM, without annotations in braces, and the units that they stand for here. A code that is not listed may be any text.
UCUM_UNITS = {
    "[hnsf'U]": HOUNSFIELD,
    "%": "percent",
    "/cm": "1/cm",
    "/min": "1/min",
    "/s": "1/s",
    "10*23/ml": "10^23 electrons/ml",
    "10*-3.mm2/s": "10^-3 mm2/s",
    "10*-6.mm2/s": "10^-6 mm2/s",
    **{
        code: code
        for code in (
            "Bq/ml", "kBq/ml", "MBq/ml", "g/ml", "mg/ml", "ug/ml", "g/cm3", "mg/cm3", "cm2", "cm2/ml", "cm2/s", "mm2/s", "um2/s",
            "um2/ms", "s", "ms", "us", "Hz", "mm", "cm/s", "mm/s", "m/s", "deg", "rad", "kPa", "Pa", "T", "mT", "uT", "keV", "Gy",
            "ml/ml", "ml/g", "ml/min/g", "ml/min/ml", "mg/min/ml", "umol/ml", "umol/min/ml", "mmol/l", "umol/l",
        )
    },
}  # fmt: skip
CODES = {unit: code for code, unit in UCUM_UNITS.items()}  # UCUM
