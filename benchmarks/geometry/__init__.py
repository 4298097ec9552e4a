"""A judge of places: every volume below a folder as the product, dcm2niix, nibabel and ITK read it, compared in millimetres."""
