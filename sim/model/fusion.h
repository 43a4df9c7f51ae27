// torch.compile as a rewrite of the op graph: memory-bound operations that feed each other become one kernel,
// as Inductor's scheduler makes of them, and what a kernel keeps for backward is chosen as AOTAutograd's
// partitioner does.
//
//   which    operations of one segment (a block, a part of the root) whose Fusion allows it, if no path
//            between them leads through another operation; equal ones are computed once. A compiled region
//            is a segment: hooks of strategies sit between segments and stay eager.
//   forward  one kernel: reads what comes from outside once, writes what leaves (or is kept) once
//   keeps    the least bytes from which backward can make the rest again; statistics of reductions and
//            dropout's masks cannot be made again, and matrix products keep their operands
//   backward one kernel: incoming gradients, what was kept, outgoing gradients; gradients are summed as they
//            are read. A second one reads again for the gradients of a norm's weights.
//   fp8      casts of operands: the largest magnitude is found by the kernel that makes them and kept for
//            backward, equal casts happen once
//   source   torch/_inductor/scheduler.py; torch/_functorch/partitioners.py (min-cut; random operations,
//            reductions and what backward must materialise are not made again); pytorch/ao
//            torchao/float8/float8_linear.py; torchtitan compiles every TransformerBlock
//   leaves out  buffers reused in place, epilogues fused into matrix products (max-autotune), rows too long
//               for one pass, fp8 operands kept instead of their 16-bit originals, CUDA graphs
#pragma once

#include <cstdint>
#include <string_view>

#include "sim/model/op_graph.h"

namespace shardsim {

enum class CompileScope : std::uint8_t { blocks, model };  // model: the root's parts and the loss too
constexpr std::string_view name(CompileScope s) { return s == CompileScope::blocks ? "blocks" : "model"; }

// The graph with each segment in scope compiled. Fusing it again changes nothing.
OpGraph fuse(const OpGraph& graph, CompileScope scope);

}  // namespace shardsim
