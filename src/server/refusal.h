// What a connection past --max-connections hears: 503, and why.
#pragma once

#include <functional>

#include "server/connection.h"

namespace pagemill {

// Writes the answer without waiting for a request, and closes once the client has had the time to
// read it: a second at most. Holds one descriptor and no buffer meanwhile. `on_closed` is called at
// the end, on whichever thread lets go of the socket.
void refuse_connection(Connection::Socket socket,
                       const Connection::Strand& strand,
                       std::size_t max_connections,
                       std::function<void()> on_closed);

}  // namespace pagemill
