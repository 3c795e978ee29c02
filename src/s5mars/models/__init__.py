"""Networks: timm encoders under decoders, SAM-CLS and SAN; their weights and licences."""
