// A program as stable text, one instruction per line, for people and for goldens.
//
//     alloc block_1 unsharded 8.00 KiB @unshard
//     collective all_gather shard bf16 8.00 KiB @nccl shard  # block 1
#pragma once

#include <string>

#include "sim/program/program.h"

namespace shardsim {

std::string dump(const Program& program, Section section);

}  // namespace shardsim
