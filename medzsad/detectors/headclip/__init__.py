"""HeadCLIP (arXiv 2505.22259), and AnomalyCLIP (Zhou et al., ICLR 2024), which it builds on."""
