"""Work that goes on at once: threads that read ahead, ordered maps, processes per device."""
