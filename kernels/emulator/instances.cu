// Kernels for the sizes of one small decoder, 2 → 64 → 64 → 64 with tanh, as the host asks a compiler for them at run time: so that tests
// reach those kernels, and the code that picks them, without a GPU.
DECODE_INSTANCE(decode_2_64_tanh, 2, 64, TANH)
DECODE_INSTANCE(decode_64_64_tanh, 64, 64, TANH)
DECODE_INSTANCE(decode_64_64_identity, 64, 64, IDENTITY)
JACOBIAN_INSTANCE(jacobian_2_64_64, 2, 64, 64)
ADJOINT_INSTANCE(adjoint_64_64, 64, 64)
GRAM_INSTANCE(gram_2, 2)
NEIGHBOUR_INSTANCE(neighbour_2, 2)
GRADIENT_INSTANCE(gradient_2, 2)
STEP_INSTANCE(step_2, 2)
// Steps with each small d.
STEP_INSTANCE(step_1, 1)
STEP_INSTANCE(step_3, 3)
STEP_INSTANCE(step_4, 4)
// Steps by the other kind of team than `step` takes for that d.
INSTANCE(step_3_by_blocks, Batch, STEP_THREADS, 2) {
    SHARED(double, scratch, 1);
    DYNAMIC_SHARED(float, work);
    step_curves<3>(p, BlockTeam{scratch}, work, blockIdx.x, gridDim.x);
}
INSTANCE(step_by_warps, Batch, STEP_THREADS, 2) {
    DYNAMIC_SHARED(float, work);
    step_curves<0>(p, WarpTeam(), work + threadIdx.x / WARP * solve_workspace(p.latent_dim), grid_warp(), grid_warps());
}
