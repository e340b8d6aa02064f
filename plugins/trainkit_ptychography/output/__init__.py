"""What a run leaves behind: pictures, TIFF files and the result."""
