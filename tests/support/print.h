// How doctest shows our quantities and ids when a check fails.
#pragma once

#include <doctest/doctest.h>

#include "sim/base/id.h"
#include "sim/base/units.h"

namespace shardsim {

template <class Tag, class Rep>
doctest::String toString(const Quantity<Tag, Rep>& q) {
  return doctest::toString(q.count);
}
template <class Tag>
doctest::String toString(const Id<Tag>& id) {
  return doctest::toString(id.index);
}

}  // namespace shardsim
