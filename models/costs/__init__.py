"""Cache bytes and FLOPs computed from an architecture, without torch.

Read in this order: `architecture` (what a model keeps and multiplies), `layouts` (bytes of a row),
`memory` and `flops` (the formulas), `deepseek_v4`, `presets` and `config_files` (where
architectures come from), `claims` (published figures), `capacity` (what fits into memory),
`tables` (rows for display).
"""
