"""Where the frames of clips lie: folders of images, LMDB, videos."""
