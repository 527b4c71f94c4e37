"""The weights file, safe reading of other weights, load reports, the cache of decompositions, downloads."""
