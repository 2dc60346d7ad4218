"""What all tests share."""

import torch

# Many small networks on few busy cores: threads that wait for each other cost more than they bring.
torch.set_num_threads(1)
