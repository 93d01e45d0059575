"""Every message between actors, frozen, a module per recipient.

A message either *tells* or *asks*: an `Ask[T]` carries its own one-shot reply.
"""

from .broker import (
    Broadcast as Broadcast,
)
from .broker import (
    BrokerMessage as BrokerMessage,
)
from .broker import (
    CancelReceive as CancelReceive,
)
from .broker import (
    CloseMailbox as CloseMailbox,
)
from .broker import (
    NoMoreInput as NoMoreInput,
)
from .broker import (
    OpenMailbox as OpenMailbox,
)
from .broker import (
    Receive as Receive,
)
from .broker import (
    ReceiveBlob as ReceiveBlob,
)
from .broker import (
    SendToInstance as SendToInstance,
)
from .broker import (
    Subscribe as Subscribe,
)
from .broker import (
    Topic as Topic,
)
from .broker import (
    Unsubscribe as Unsubscribe,
)
from .executor import (
    Adapt as Adapt,
)
from .executor import (
    ExecutorMessage as ExecutorMessage,
)
from .executor import (
    ReadEmbeddings as ReadEmbeddings,
)
from .executor import (
    ReadPages as ReadPages,
)
from .executor import (
    RunBatch as RunBatch,
)
from .executor import (
    WritePages as WritePages,
)
from .forward import (
    ForwardPass as ForwardPass,
)
from .forward import (
    PassResult as PassResult,
)
from .forward import (
    Rank as Rank,
)
from .forward import (
    Sample as Sample,
)
from .scheduler import (
    AllocatePointers as AllocatePointers,
)
from .scheduler import (
    DescribeService as DescribeService,
)
from .scheduler import (
    EndInstance as EndInstance,
)
from .scheduler import (
    ExportPointers as ExportPointers,
)
from .scheduler import (
    FreePointers as FreePointers,
)
from .scheduler import (
    ImportPointers as ImportPointers,
)
from .scheduler import (
    ListExports as ListExports,
)
from .scheduler import (
    ModelService as ModelService,
)
from .scheduler import (
    OpenInstance as OpenInstance,
)
from .scheduler import (
    ReleaseExport as ReleaseExport,
)
from .scheduler import (
    SchedulerMessage as SchedulerMessage,
)
from .scheduler import (
    ServiceStats as ServiceStats,
)
from .scheduler import (
    SubmitPass as SubmitPass,
)
from .scheduler import (
    Synchronize as Synchronize,
)
from .store import (
    DeleteKey as DeleteKey,
)
from .store import (
    GetKey as GetKey,
)
from .store import (
    ListKeys as ListKeys,
)
from .store import (
    SetKey as SetKey,
)
from .store import (
    StoreMessage as StoreMessage,
)
from .supervisor import (
    BlobSent as BlobSent,
)
from .supervisor import (
    ClientItem as ClientItem,
)
from .supervisor import (
    Event as Event,
)
from .supervisor import (
    InstanceDescription as InstanceDescription,
)
from .supervisor import (
    Launch as Launch,
)
from .supervisor import (
    LaunchContext as LaunchContext,
)
from .supervisor import (
    Launched as Launched,
)
from .supervisor import (
    ListInstances as ListInstances,
)
from .supervisor import (
    Output as Output,
)
from .supervisor import (
    Refused as Refused,
)
from .supervisor import (
    Returned as Returned,
)
from .supervisor import (
    SupervisorMessage as SupervisorMessage,
)
from .supervisor import (
    Terminate as Terminate,
)
