"""What is learned in the weights: LoRA and any other tuner of PEFT, and full fine-tuning. Imported as `softprompt.adapters`.

They come in through the same registry as a stranger's plug-in would; nothing in the core names them.
"""
