"""The weights file, safe reading of other people's files, load reports, the cache of decompositions, downloads."""
