"""Public names of `monai.networks.nets` that are not in the zoo, each with the reason."""

from __future__ import annotations

REGISTRATION = "registers two images: its answer is a field of displacements, and it takes both images as channels"
GENERATION = "makes or rebuilds images; its answer is an image"
TRANSCHEX = "part of Transchex, which takes a text beside the image"
VECTORS = "takes vectors or tokens, not images"
SEARCH = "search space of DiNTS, which is in the zoo with the space of its trained form"
NO_NETWORK = "not a network"
VARIANT = "MedNeXt, which is in the zoo, with more blocks"

ABSENT: dict[str, str] = {
    "AutoencoderKL": GENERATION,
    "BertAttention": TRANSCHEX,
    "BertMixedLayer": TRANSCHEX,
    "BertOutput": TRANSCHEX,
    "BertPreTrainedModel": TRANSCHEX,
    "ControlNet": GENERATION,
    "DecoderOnlyTransformer": VECTORS,
    "DiffusionModelUNet": GENERATION,
    "FLEXUNET_BACKBONE": NO_NETWORK,
    "FlexUNetEncoderRegister": NO_NETWORK,
    "FullyConnectedNet": VECTORS,
    "Generator": GENERATION,
    "GlobalNet": REGISTRATION,
    "HoVerNet": "takes images of 256 x 256 or 270 x 270 only, which is too long for the zoo",
    "HyenaNDUNETR": "needs an optional package, nvsubquadratic; without Hyena blocks it is SwinUNETR, which is in the zoo",
    "LocalNet": REGISTRATION,
    "MaskedAutoEncoderViT": "hides random patches in eval mode too, so that its answer is random, and rebuilds the image",
    "MedNeXtB": VARIANT,
    "MedNeXtL": VARIANT,
    "MedNeXtM": VARIANT,
    "MedNeXtS": VARIANT,
    "MultiModal": TRANSCHEX,
    "Pooler": TRANSCHEX,
    "RegUNet": REGISTRATION,
    "SPADEAutoencoderKL": GENERATION,
    "SPADEDiffusionModelUNet": GENERATION,
    "SPADENet": GENERATION,
    "TopologyConstruction": SEARCH,
    "TopologySearch": SEARCH,
    "Transchex": "takes a text beside the image, and the BERT of an older transformers",
    "VISTA3D": "answers to prompts; its encoder is SegResNetDS2, which is in the zoo",
    "VQVAE": "quantises its features and passes gradients straight through, on purpose; it rebuilds images",
    "VarFullyConnectedNet": VECTORS,
    "VoxelMorph": REGISTRATION,
    "VoxelMorphUNet": REGISTRATION,
    "drop_connect": NO_NETWORK,
    "get_efficientnet_image_size": NO_NETWORK,
    "get_medicalnet_pretrained_resnet_args": NO_NETWORK,
    "get_pretrained_resnet_medicalnet": NO_NETWORK,
    "vista3d132": "VISTA3D",
}
