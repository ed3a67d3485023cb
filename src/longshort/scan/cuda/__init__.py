"""CUDA for the scan: sources, and what turns them into launches.

sources.py    the kernels' text -> one program for a type and a tiling
compiler.py   a program -> a binary, by NVRTC, kept on disk
driver.py     a binary -> a kernel that can be launched, by the driver's own library
machine.py    one device: its properties, its kernels, its products
tiling.py     sizes of a call and a device -> how the persistent kernels are cut
packing.py    a call -> the kernels' one argument
streams.py    works that do not depend on each other -> streams of their own
dropping.py   a tensor -> the same under its mask
copying.py    a matrix -> the same padded, or transposed; sequences -> the same step by step
products.py   a product made at every step, prepared once
step_plan.py, persistent_plan.py, team_plan.py   the ways to run a call; plans.py which one does
weights.py    what is left when they are done: products over all steps
rounding.py   the small ones of their gradients -> summed and rounded

device.cuh    every hardware instruction         call.cuh      steps, lengths, resets, the state's way
arguments.cuh the one argument, every pointer    units.cuh     adjacent units of one thread, in wide loads
norms.cuh     z̄ behind a norm                    row.cuh       a row in one block, for the norms
meeting.cuh   a row in several, for the norms    projection.cuh  W_hr resident beside W_hh
philox.cuh, decisions.cuh   the noise           product.cuh   resident weights times a staged operand
lengths.cuh   the lengths of a thread's sequences  inputs.cuh  W_ih resident too, times x
cell.cuh, cell_back.cuh   equations (2) to (17) of one cell
exchange.cuh  blocks tell each other h and ā     tiling.cuh    how a persistent kernel is cut
hopper.cuh    what only Hopper has               units_forward.cuh  one step of them, whatever multiplied
step_*.cu, persistent_*.cu, norms.cu, team_forward.cu, dropped.cu, copied.cu, rounded.cu   the kernels
"""
