"""Where the dashboard's pages are."""

from django.urls import path

from dashboard.views.agent_log import agent_log
from dashboard.views.decisions import decisions
from dashboard.views.deployments import deployment, serving
from dashboard.views.enroll import enroll, enroll_again, enrolment
from dashboard.views.entrance import AdminLoginView, LeaveView
from dashboard.views.node_orders import edit, order
from dashboard.views.nodes import node, nodes
from dashboard.views.overview import overview
from dashboard.views.placement import placement
from dashboard.views.playground import playground
from dashboard.views.power import power
from dashboard.views.scaling import scaling

urlpatterns = [
    path("", overview, name="overview"),
    path("logout/", LeaveView.as_view(), name="logout"),
    path("playground/", playground, name="playground"),
    path("deployments/<str:name>/", deployment, name="deployment"),
    path("deployments/<str:name>/serving/", serving, name="deployment-serving"),
    path("deployments/<str:name>/scaling/", scaling, name="deployment-scaling"),
    path("deployments/<str:name>/placement/", placement, name="deployment-placement"),
    path("decisions/", decisions, name="decisions"),
    path("nodes/", nodes, name="nodes"),
    path("power/", power, name="power"),
    path("enroll/", enroll, name="enroll"),
    path("nodes/<str:name>/", node, name="node"),
    path("nodes/<str:name>/edit/", edit, name="node-edit"),
    path("nodes/<str:name>/order/<slug:key>/", order, name="node-order"),
    path("enrolments/<int:pk>/", enrolment, name="enrolment"),
    path("enrolments/<int:pk>/again/", enroll_again, name="enroll-again"),
    path("agents/<str:pk>/log/", agent_log, name="agent-log"),
    # The admin's own doors lead through ours, so that there is one log-in and it is throttled.
    path("admin/login/", AdminLoginView.as_view()),
    path("admin/logout/", LeaveView.as_view()),
]
