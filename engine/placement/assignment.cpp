// Assignment, see assignment.h.
#include "engine/placement/assignment.h"

#include <limits>

namespace switchyard {

// Rows enter one at a time; each takes the cheapest alternating path (cost = -gain, reduced by the potentials) to a
// free column. Index 0 stands for "none", rows and columns count from 1.
std::vector<int> best_assignment(std::span<const double> gain, int n) {
  const size_t width = size_t(n) + 1;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  std::vector<double> row_potential(width, 0), column_potential(width, 0), slack(width);
  std::vector<size_t> row_of(width, 0), from(width, 0);
  std::vector<char> visited(width);
  for (size_t row = 1; row < width; ++row) {
    row_of[0] = row;
    size_t column = 0;
    slack.assign(width, kInfinity);
    visited.assign(width, 0);
    do {
      visited[column] = 1;
      const size_t r = row_of[column];
      double least = kInfinity;
      size_t next = 0;
      for (size_t c = 1; c < width; ++c) {
        if (visited[c]) continue;
        const double reduced = -gain[(r - 1) * size_t(n) + c - 1] - row_potential[r] - column_potential[c];
        if (reduced < slack[c]) {
          slack[c] = reduced;
          from[c] = column;
        }
        if (slack[c] < least) {
          least = slack[c];
          next = c;
        }
      }
      for (size_t c = 0; c < width; ++c) {
        if (visited[c]) {
          row_potential[row_of[c]] += least;
          column_potential[c] -= least;
        } else {
          slack[c] -= least;
        }
      }
      column = next;
    } while (row_of[column] != 0);
    for (; column != 0; column = from[column]) row_of[column] = row_of[from[column]];
  }
  std::vector<int> column_of(size_t(n), 0);
  for (size_t c = 1; c < width; ++c) column_of[row_of[c] - 1] = int(c) - 1;
  return column_of;
}

}  // namespace switchyard
