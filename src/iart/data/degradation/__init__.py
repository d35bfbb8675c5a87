"""How low resolution comes about: by reduction alone, or as on DVDs, on tape and on the web."""
