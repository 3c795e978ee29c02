"""Networks: timm encoders under a DeepLabV3+ head."""
