// The pullback metric G = JᵀJ of every point; weighted, also a layer's share T · diag(w) · Tᵀ of second derivatives.
//
//   x, y   [points, d, width]   Jacobian columns or tangents, the same in both, with the scales of each
//   out    [points, d, d]       symmetric to the bit
//
// A warp for every 8 × 8 products on and above the diagonal; see inner_products.cuh. FFMA: points · d(d + 8) · width.
#include "inner_products.cuh"

KERNEL(gram, InnerProducts, 256, 1) { inner_products<8, 0, 0, 0, true, 0>(p); }
/// Products of a point's rows with other rows of its own, second derivatives with tangents.
KERNEL(cross_products, InnerProducts, 256, 1) { inner_products<8, 0, 0, 0, false, 0>(p); }

#define GRAM_INSTANCE(name, dim) \
    INSTANCE(name, InnerProducts, 256, 1) { inner_products<INNER_TILE<dim>, dim, dim, 0, true, 0>(p); }
