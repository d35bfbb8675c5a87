"""Scores beyond PSNR and SSIM."""
