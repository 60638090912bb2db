"""The networks shipped with the package: tensors, tokenizers and a card for each."""
