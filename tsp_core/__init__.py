"""TSP: from raw untrimmed videos and temporal annotations to temporally-sensitive features.

The method is that of Alwassel, Giancola and Ghanem, "TSP: Temporally-Sensitive Pretraining of Video
Encoders for Localization Tasks", ICCV Workshops 2021.
"""

__version__ = "0.1.0"
