"""DVDs: titles, their IFO files, and VOBs read as one program stream."""
