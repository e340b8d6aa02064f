"""From patches to whole volumes, and back onto a case's own voxel grid."""
