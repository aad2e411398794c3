"""What is learned in the weights: LoRA and any other tuner of PEFT, and full fine-tuning. Imported as `softprompt.adapters`.

They come in through the same registry as a stranger's plug-in would; nothing in the core names them.
"""

from softprompt.base.quantized import quiet

quiet()  # importing PEFT imports bitsandbytes where it is installed, which remarks on kernels that nothing here uses
