#include "layers/forward_batch.h"

namespace pagemill {

void select_queries(std::span<const AttentionSequence> sequences,
                    std::span<const std::int32_t> rows,
                    std::vector<AttentionSequence>& selected) {
  selected.clear();
  std::size_t at = 0;
  for (const AttentionSequence& sequence : sequences) {
    const std::int32_t end = sequence.query_start + sequence.query_len;
    while (at < rows.size() && rows[at] < end) {
      const std::int32_t first = rows[at++];
      std::int32_t last = first;
      while (at < rows.size() && rows[at] < end && rows[at] == last + 1) last = rows[at++];
      selected.push_back({.query_start = first,
                          .query_len = last - first + 1,
                          .context_len = sequence.context_len - (end - 1 - last),
                          .block_table = sequence.block_table});
    }
  }
}

}  // namespace pagemill
