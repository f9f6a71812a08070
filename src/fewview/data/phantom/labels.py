"""The tissues of a phantom and their numbers in the label map."""

LABELS: dict[str, int] = {
    "outside": 0,
    "skin": 1,
    "fat": 2,
    "muscle": 3,
    "breast": 4,
    "mediastinum": 5,
    "abdomen": 6,
    "lung": 7,
    "lung_vessel": 8,
    "airway": 9,
    "nodule": 10,
    "heart": 11,
    "aorta": 12,
    "great_vessel": 13,
    "esophagus": 14,
    "diaphragm": 15,
    "liver": 16,
    "spleen": 17,
    "stomach": 18,
    "kidney": 19,
    "bowel": 20,
    "vertebra": 21,
    "disc": 22,
    "spinal_canal": 23,
    "rib": 24,
    "costal_cartilage": 25,
    "sternum": 26,
    "clavicle": 27,
    "scapula": 28,
    "humerus": 29,
}

OPTIONAL = frozenset({"breast", "nodule", "humerus"})
"""Not in every body: these depend on the anatomy drawn."""
