"""Puts finished runs beside the paper's Table 1, tests them against each other, and draws the paper's figures."""
