// Can what `collective` prints be read as nccl-tests' output, and does its JSON keep its promise?
#include <algorithm>
#include <sstream>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "sim/report/csv.h"
#include "sim/report/json.h"
#include "sim/report/text.h"

#include "tests/support/hardware.h"
#include "tests/support/schema.h"

namespace shardsim {
namespace {

CollectiveResult h100s() {
  CollectiveQuery query;
  query.topology = "dgx-h100";
  query.gpus = "8,64";
  query.sizes = "64K..8G x16";
  return collective_table(query, test_library());
}

TEST_CASE("the table has the lines and columns of nccl-tests") {
  // The three head lines, byte for byte, as in coreweave/nccl-tests' README (64 H100s); rows in the format of
  // NVIDIA/nccl-tests src/common.cu.
  const std::string text = to_text(h100s());
  CHECK(
      text.find(
          "#                                                              out-of-place                       "
          "in-place          \n"
          "#       size         count      type   redop    root     time   algbw   busbw #wrong     time   "
          "algbw   busbw #wrong\n"
          "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  "
          "(GB/s)  (GB/s)       \n") != std::string::npos);
  std::istringstream in(text);
  std::string line;
  int rows = 0, averages = 0;
  while (std::getline(in, line)) {
    averages += line.starts_with("# Avg bus bandwidth    : ") ? 1 : 0;
    if (line.starts_with("#")) continue;
    CHECK(line.size() ==
          std::string("  1073741824     268435456     float     sum      -1   5808.0  184.87  365.90   "
                      "   0   5882.2  182.54  361.28      0")
              .size());
    std::istringstream cells(line);
    double bytes = 0, count = 0, root = 0, us = 0, algorithm = 0, bus = 0;
    std::string type, redop, wrong;
    CHECK(static_cast<bool>(cells >> bytes >> count >> type >> redop >> root >> us >> algorithm >> bus >>
                            wrong));
    CHECK(bytes == count * 4);
    CHECK(root == -1);
    CHECK(algorithm == doctest::Approx(bytes / us * 1e-3).epsilon(0.01));
    ++rows;
  }
  CHECK(rows == 2 * 5);
  CHECK(averages == 2);
}

TEST_CASE("the JSON of collectives satisfies its schema, and agrees with the CSV") {
  const CollectiveResult result = h100s();
  const std::string document = to_json(result, {"0.1.0", "abc"});
  CHECK(violation(document, "collective") == "");
  const auto j = nlohmann::json::parse(document);
  CHECK(j["rows"].size() == 10);
  CHECK(j["averages"].size() == 2);
  for (const auto& row : j["rows"]) {
    const double ranks = row["ranks"], us = row["time_us"], bytes = row["bytes"];
    CHECK(double(row["busbw_gb_per_s"]) == doctest::Approx(2 * (ranks - 1) / ranks * bytes / us * 1e-3));
    CHECK(us == doctest::Approx(double(row["latency_us"]) +
                                double(row["wire_bytes"]) / double(row["rate_gb_per_s"]) * 1e-3));
  }
  const std::string csv = to_csv(result);
  CHECK(std::count(csv.begin(), csv.end(), '\n') == 11);
  CHECK(csv.find("dgx-h100,eager-2023,all_reduce,float,8,1,8,1,") != std::string::npos);
}

}  // namespace
}  // namespace shardsim
